"""`python -m deploy.sizing`: how many draft replicas a target replica needs, by the cost model."""

from argparse import ArgumentParser

from shared.cost_model import CostModel
from shared.model.profile import Profile


def costs(target: str, draft: str, sessions: int, largest_k: int) -> CostModel:
    """Return the cost of rounds when `sessions` sessions share each pass. Raises ModelError for an unknown profile."""
    verifies, drafts = Profile.load(target), Profile.load(draft)
    return CostModel(
        draft_token_seconds=drafts.seconds(sessions, sessions),
        verify_seconds=[verifies.seconds(sessions * (k + 1), sessions) for k in range(largest_k + 1)],
    )


def main() -> None:
    """Print the table."""
    flags = ArgumentParser(description=__doc__)
    flags.add_argument("--target", default="trn2-qwen3-32b", help="of shared/model/devices/profiles")
    flags.add_argument("--draft", default="trn2-qwen3-1.7b", help="likewise")
    flags.add_argument("--sessions", type=int, default=4, help="that decode at once")
    flags.add_argument("--largest-k", type=int, default=15)
    flags.add_argument("--busy-share", type=float, default=0.6, help="that a draft replica is meant to have")
    args = flags.parse_args()
    model = costs(args.target, args.draft, args.sessions, args.largest_k)
    print("acceptance  best k  over plain  draft busy  draft replicas a target")
    for acceptance in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        k, speeds = model.best_k(acceptance), model.tokens_per_second(acceptance)
        busy = k * model.draft_token_seconds / model.round_seconds(k)
        gain, replicas = speeds[k] / speeds[0], busy / args.busy_share
        print(f"{acceptance:10.2f}  {k:6}  {gain:10.2f}  {busy:10.0%}  {replicas:23.2f}")


if __name__ == "__main__":
    main()
