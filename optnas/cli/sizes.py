"""What options say of images and of networks, as settings."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optnas.config.settings import DataSettings, NetworkSettings


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
