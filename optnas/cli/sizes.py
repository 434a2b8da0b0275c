"""What `optnas retrain` is told: studies, images, and the sizes of networks."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from optnas.config.settings import DataSettings, NetworkSettings
    from optnas.study.opening import OpenStudy


def images_said(name: str | None, **keys: Any) -> "DataSettings | None":
    """Images of `--data`; None without it.

    Args:
        name: The data set.
        keys: Other keys of `data`, None or False where they are not given.

    Raises:
        UserError: If others are given without it.
    """
    from optnas.config.settings import DataSettings
    from optnas.errors import UserError

    given = {key: value for key, value in keys.items() if value not in (None, False)}
    if name is None:
        if given:
            raise UserError(
                "--root and --download belong to --data, and so do --size and --stream; the "
                "study's data has its own"
            )
        return None
    return DataSettings(name=name, **given)


def network_said(**sizes: Any) -> "NetworkSettings | None":
    """The sizes that are given, None where they are not; None without any.

    Raises:
        UserError: If one is out of range.
    """
    import pydantic

    from optnas.config.settings import NetworkSettings
    from optnas.errors import UserError

    given = {key: value for key, value in sizes.items() if value is not None}
    try:
        return NetworkSettings(**given) if given else None
    except pydantic.ValidationError as error:
        wrong = error.errors()[0]
        raise UserError(f"--{wrong['loc'][0]}: {wrong['msg']}, not {wrong['input']!r}") from None


def opened_together(
    target: str, others: "Sequence[str]", *, ensemble: bool, allow: "Collection[str]"
) -> "list[OpenStudy]":
    """The study of a file or a storage, or those of several files for one ensemble.

    Args:
        target: The first file, or a storage's URL.
        others: The study's name, or further files.
        ensemble: Whether an ensemble is asked for.
        allow: Code that may be imported though a storage names it.

    Raises:
        UserError: If they cannot be opened, or there are several without an ensemble.
    """
    from optnas.errors import UserError
    from optnas.study.opening import open_existing

    if "://" in target or not any(name.endswith((".yaml", ".yml")) for name in others):
        if len(others) > 1:
            raise UserError(f"one study has one name, not {len(others)}: {', '.join(others)}")
        return [open_existing(target, *others, allow=allow)]
    if not ensemble:
        raise UserError("several studies are retrained together for --ensemble alone")
    return [open_existing(path, allow=allow) for path in (target, *others)]
