"""A forecast as a person reads it, and as a program does."""

from typing import Any

from optnas.forecast.ahead import Ahead
from optnas.forecast.dry_run import Forecast
from optnas.forecast.ranges import Span
from optnas.units import count, duration, size

ENDLESS = "none in sight: neither the strategy nor a budget ends it (`budget: {trials: 100}`)"


def forecast_text(forecast: Forecast) -> str:
    """The whole of it, and the next command."""
    config, ahead = forecast.handle.config, forecast.ahead
    where = f" on {forecast.device}" if forecast.device else ""
    lines = [f"study {config.study!r}: {config.sampler.name}{where}", *forecast.data]
    if forecast.networks:
        lines += ["", *_networks(forecast)]
    rows = {"trials": trials_text(ahead), "epochs": _epochs(ahead)}
    if forecast.done:
        rows = {"so far": f"{forecast.done}; what follows is left", **rows}
    rows |= {"time": _time(forecast), "disk": _disk(forecast), "retraining": _retraining(forecast)}
    lines += ["", *(f"{name:<12}{text}" for name, text in rows.items() if text)]
    lines += [
        "",
        "Nothing was created. Times are for this machine: free, or as busy as it is now.",
    ]
    return "\n".join(lines)


def start_line(ahead: Ahead, seconds: Span | None) -> str:
    """One line of it, for the start of a run."""
    if ahead.courses is None:
        if seconds is not None:
            return f"ahead: {seconds.times()} of training, as the budget says"
        return f"end: {ENDLESS}"
    text = f"ahead: {trials_text(ahead)}"
    return text if seconds is None else f"{text}; {seconds.times()} with one worker"


def trials_text(ahead: Ahead) -> str:
    """How many trials are ahead, and what they are for."""
    if ahead.courses is None or ahead.trials is None or ahead.bounds is None:
        return "" if ahead.has_end else ENDLESS
    likely, (least, most) = ahead.trials.counts(), ahead.bounds
    text = "1 trial" if likely == "1" else f"{likely} trials"
    if least and least < most:
        text += f" (at least {least:,}, at most {most:,})"
    parts = [f"{phase} {number.counts()}" for phase, (number, _) in ahead.phases.items() if phase]
    return f"{text}: {', '.join(parts)}" if len(parts) > 1 else text


def forecast_fields(forecast: Forecast) -> dict[str, Any]:
    """The same for programs: sizes in bytes, times in seconds, ranges as pairs."""
    ahead, config = forecast.ahead, forecast.handle.config
    states, stays = forecast.disk or (None, None)
    number, epochs, seconds = forecast.retraining or (None, None, None)
    return {
        "study": config.study,
        "sampler": config.sampler.name,
        "device": forecast.device,
        "trials_done": forecast.done,
        "data": list(forecast.data),
        "networks": {
            each.name: {
                field: getattr(each.costs, field)
                for field in ("params", "multiply_adds", "memory_bytes", "state_bytes")
            }
            | {"epoch_seconds": each.costs.seconds, "trouble": each.costs.trouble}
            for each in forecast.networks
        },
        "has_end": ahead.has_end,
        "trials": ahead.trials,
        "trial_bounds": ahead.bounds,
        "phases": {name: span for name, (span, _) in ahead.phases.items()},
        "epochs": ahead.epochs,
        "epochs_per_trial": ahead.per_trial,
        "seconds": forecast.seconds,
        "seconds_per_trial": forecast.each,
        "disk": {"training_states": states, "stays": stays},
        "retraining": {"networks": number, "epochs": epochs, "seconds": seconds},
    }


def _networks(forecast: Forecast) -> list[str]:
    row = "{:<16}{:>9}  {:>9}  {:>10}  {:>10}"
    lines = [row.format("network", "params", "mult-adds", "an image", "an epoch").rstrip()]
    for each in forecast.networks:
        costs = each.costs
        time = "not timed" if costs.seconds is None else _brief(costs.seconds)
        line = row.format(
            each.name,
            count(costs.params),
            count(costs.multiply_adds),
            size(costs.memory_bytes),
            time,
        )
        lines.append(line if costs.trouble is None else f"{line}  {costs.trouble}")
    limits = forecast.handle.config.limits
    broken = [
        name
        for name, most in limits.model_dump(exclude_none=True).items()
        for each in forecast.networks
        if getattr(each.costs, name) > most
    ]
    if broken:
        lines.append(
            f"What is beyond the limits ({', '.join(dict.fromkeys(broken))}) is not trained."
        )
    return lines


def _brief(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else duration(seconds)


def _epochs(ahead: Ahead) -> str:
    if ahead.epochs is None:
        return f"{ahead.per_trial.counts()} a trial" if ahead.courses is None else ""
    return ahead.epochs.counts()


def _time(forecast: Forecast) -> str:
    if forecast.seconds is not None:
        return f"{forecast.seconds.times()} with one worker"
    if forecast.each is not None:
        return f"{forecast.each.times()} a trial"
    return "nobody knows before a trial has ended"


def _disk(forecast: Forecast) -> str:
    if forecast.disk is None:
        return ""
    states, stays = forecast.disk
    now = states.text(lambda number: size(int(number)))
    then = stays.text(lambda number: size(int(number)))
    return f"{now} of checkpoints while a network trains; {then} in the end"


def _retraining(forecast: Forecast) -> str:
    if forecast.retraining is None:
        return ""
    number, epochs, seconds = forecast.retraining
    what = "the network found" if number == 1 else f"{number} trainings"
    time = "" if seconds is None else f": {seconds.times()}"
    return f"{what}, {epochs} epochs{time}"
