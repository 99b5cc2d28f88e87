"""`make serve`: the three services on this machine, until Ctrl-C."""

import signal

from scripts.stack import console, parser, stack


def main() -> None:
    """Run until told to stop."""
    flags = parser(__doc__)
    flags.add_argument("--port", type=int, default=8000, help="the gateway's port")
    args = flags.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with stack(args, args.port, draft_port=50051, target_port=50052, log_level="INFO") as url:
            console.print(f"OpenAI API: {url}/v1   gRPC: draft 127.0.0.1:50051, target 127.0.0.1:50052   Ctrl-C stops")
            signal.pause()
    except KeyboardInterrupt:
        console.print("stopped")


if __name__ == "__main__":
    main()
