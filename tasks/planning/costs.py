"""What a stage will take, from what its earlier versions measured."""

from tasks.planning.plan import Cost
from tasks.store import Derivation, Manifest, Store


def forecast_cost(store: Store, derivation: Derivation, rows_to_make: int) -> Cost | None:
    """Seconds, GPU hours and tokens by the rate of the most alike earlier version that had something to make.

    None: nothing was ever measured. A generating stage's time is its start and a rate per row; a training's is the
    whole of it, since its examples hardly change in number.
    """
    measured = [m for m in store.versions(derivation.dataset) if is_measured(m, derivation)]
    if not measured:
        return None
    by = max(reversed(measured), key=lambda m: alike(m.derivation, derivation))
    starting = by.cost.get("seconds_starting", 0.0)
    share = rows_to_make / by.cost["rows_made"] if "rows_made" in by.cost else 1.0
    seconds = starting + share * (by.cost["seconds"] - starting)
    return Cost(
        seconds=seconds,
        gpu_hours=seconds * by.cost.get("gpus", 0) / 3600,
        num_tokens=round(share * by.cost.get("num_tokens", 0)),
        basis=f"{by.dataset}/{by.version}",
    )


def is_measured(manifest: Manifest, derivation: Derivation) -> bool:
    return (
        manifest.derivation.stage == derivation.stage
        and "seconds" in manifest.cost
        and manifest.cost.get("rows_made", 1) > 0
    )


def alike(old: Derivation, new: Derivation) -> int:
    """How much two derivations have in common that costs time: models and settings."""
    shared = sum(old.models.get(role) == content for role, content in new.models.items())
    return shared + sum(old.config.get(key) == value for key, value in new.config.items())
