"""`make serve`: the three services on this machine, until Ctrl-C."""

import signal

from scripts.stack import console, parser, stack


def main() -> None:
    """Run until told to stop."""
    flags = parser(__doc__)
    flags.add_argument("--port", type=int, default=8000, help="the gateway's port")
    flags.add_argument("--draft-port", type=int, default=50051, help="the draft service's")
    flags.add_argument("--target-port", type=int, default=50052, help="the target service's")
    args = flags.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with stack(args, args.port, args.draft_port, args.target_port, log_level="INFO") as url:
            grpc = f"draft 127.0.0.1:{args.draft_port}, target 127.0.0.1:{args.target_port}"
            console.print(f"OpenAI API: {url}/v1   gRPC: {grpc}   Ctrl-C stops")
            signal.pause()
    except KeyboardInterrupt:
        console.print("stopped")


if __name__ == "__main__":
    main()
