"""What the rates are to be, and whether they are."""

from typing import Any

from rows import LIMIT, OURS

TIMES_THE_BEST_PEER = {
    "none": 10,
    "flip + colour": 10,
    "warp + colour": 6,
    "flip + colour 256²": 7,
    "flip + colour 512²": 6,
    "warp + colour 256²": 5,
    "warp + colour 512²": 4,
    "everything": 5,
    "crops": 5,
}
OF_THE_LIMIT = {"none": 0.7, "flip + colour": 0.6}
THROUGH_TF = 0.75  # of the NumPy row, for each kind
FIRST_BATCH = {"warm": 1.0, "cold": 5.0}  # seconds since the start of the process
MEMORY = 0.05  # by which anonymous memory of many records may differ from that of few


def judged(
    rates: dict[str, float], firsts: dict[str, float], memory: float | None
) -> list[dict[str, Any]]:
    """Each goal with its value, "met" or "missed"; "not measured" without rows for it.

    Args:
        rates: Row name to images a second.
        firsts: "warm" and "cold" to seconds from the start of a process to its first batch.
        memory: Anonymous memory over many records, by that over few.
    """
    goals = []
    for kind, least in TIMES_THE_BEST_PEER.items():
        peer = best_peer(rates, kind)
        value = _ratio(rates.get(f"{OURS} {kind}"), rates.get(peer or ""))
        goals.append(_goal(f"{kind}: {least} × the best peer", value, least=least, peer=peer))
    for kind, least in OF_THE_LIMIT.items():
        value = _ratio(rates.get(f"{OURS} {kind}"), rates.get(f"{LIMIT} none"))
        goals.append(_goal(f"{kind}: {least} of the copy limit", value, least=least))
    for kind in ("none", "flip + colour", "warp + colour", "everything"):
        value = _ratio(rates.get(f"{OURS} through tf.data {kind}"), rates.get(f"{OURS} {kind}"))
        goals.append(_goal(f"{kind}: {THROUGH_TF} through tf.data", value, least=THROUGH_TF))
    for cache, most in FIRST_BATCH.items():
        goals.append(_goal(f"first batch, {cache}: {most} s", firsts.get(cache), most=most))
    change = None if memory is None else abs(memory - 1)
    goals.append(_goal(f"memory of 40,000 by 1,000 records: within {MEMORY}", change, most=MEMORY))
    return goals


def best_peer(rates: dict[str, float], kind: str) -> str | None:
    """The name of the fastest row of a kind that is neither ours nor the limit."""
    peers = [
        name for name in rates if name.endswith(f" {kind}") and not name.startswith((OURS, LIMIT))
    ]
    return max(peers, key=lambda name: rates[name], default=None)


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None


def _goal(
    goal: str,
    value: float | None,
    *,
    least: float = float("-inf"),
    most: float = float("inf"),
    peer: str | None = None,
) -> dict[str, Any]:
    if value is None:
        return {"goal": goal, "value": None, "state": "not measured"}
    state = "met" if least <= value <= most else "missed"
    found = {"goal": goal, "value": round(value, 3), "state": state}
    return found | ({"peer": peer} if peer else {})
