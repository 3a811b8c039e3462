"""A form beside the cells of a notebook: which checks, on which target, with which sizes, and how they go."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, Final

from lab_utils.notebook.progress import HEADLESS_VARIABLE, Live, is_watched
from lab_utils.notebook.views import View
from lab_utils.runner import Cancelled
from lab_utils.targets import FRAMEWORKS, TARGETS, installed
from lab_utils.values.profiles import PROFILES, Parameter, UsageError, parameters_for

if TYPE_CHECKING:
    from lab_utils.notebook.lab import Lab

__all__ = ["Form", "make_form"]

_SECONDS_BETWEEN: Final = 0.25
_ABOUT: Final = "Experiments: their results are kept beside all others, and change no verdict of this notebook."
_WIDE: Final = {"width": "auto"}
_LABEL: Final = {"description_width": "12em"}


def make_form(lab: Lab) -> Form | View:
    """The form where somebody can use it, else a sentence; on the pages of a run not even that."""
    if os.environ.get(HEADLESS_VARIABLE):
        return View("", "")
    if not is_watched():
        text = "Opened in JupyterLab, this cell shows a form that runs these checks with other sizes and targets."
        return View(f"<p><small>{text}</small></p>", text)
    try:
        return Form(lab)
    except ImportError as error:
        text = f"The form needs ipywidgets ({error}): pip install 'agent-registry-lab[lab]'. All cells work without it."
        return View(f"<p>{escape(text)}</p>", text)


class Form:
    """What it runs are experiments: kept beside all earlier results, and no part of the notebook's verdict.

    A check runs in a process of its own and is waited for in a thread, so that the kernel answers meanwhile. An error
    is shown in the form, for nothing else would show it.
    """

    def __init__(self, lab: Lab) -> None:
        import ipywidgets as widgets

        self._lab = lab
        self.task: asyncio.Task[None] | None = None
        self._cancelled = threading.Event()
        self.checks = {
            name: widgets.Checkbox(value=True, description=name, indent=False, layout={**_WIDE, "max_width": "100%"})
            for name in lab.checks
        }
        planted = sorted({name for check in lab.checks.values() for name in check.planted})
        self.target = widgets.Combobox(
            value=lab.target,
            options=[*TARGETS, *FRAMEWORKS, *installed(), *planted],
            description="target",
            tooltip="a name, or package.module:Name; the names of planted registries too",
            **_looks(),
        )
        self.profile = widgets.Dropdown(
            value=lab.profile, options=PROFILES, description="profile", tooltip="sets the sizes below", **_looks()
        )
        self.seed = widgets.IntText(
            value=lab.seed, description="seed", tooltip="the same seed gives the same workload", **_looks()
        )
        self.sizes: dict[str, Any] = {
            one.name: _field(widgets, one, lab.parameters[one.name]) for one in lab.category.parameters
        }
        self.run = widgets.Button(description="Run", button_style="primary", icon="play")
        self.stop = widgets.Button(description="Stop", icon="stop", disabled=True)
        self.every = widgets.Button(description="All or none", tooltip="tick every check, or none")
        self.panel = widgets.HTML()
        self.table = widgets.Output()
        self.profile.observe(self._take_profile, "value")
        self.run.on_click(self._start)
        self.stop.on_click(lambda _: self._cancelled.set())
        self.every.on_click(self._tick)
        fields = widgets.GridBox(
            [self.target, self.profile, self.seed, *self.sizes.values()],
            layout={"grid_template_columns": "repeat(auto-fit, minmax(min(24em, 100%), 1fr))", "grid_gap": "0 1.5em"},
        )
        self.box = widgets.VBox(
            [
                widgets.HTML(f"<p style='line-height:1.45'>{_ABOUT}</p>"),
                widgets.VBox(list(self.checks.values())),
                fields,
                widgets.HBox([self.run, self.stop, self.every], layout={"flex_flow": "row wrap"}),
                self.panel,
                self.table,
            ],
            layout={"width": "100%"},
        )

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.box)  # type: ignore[no-untyped-call]

    def _take_profile(self, change: Mapping[str, Any]) -> None:
        for parameter in self._lab.category.parameters:
            self.sizes[parameter.name].value = parameter.value(change["new"])

    def _tick(self, _: object) -> None:
        is_every = all(box.value for box in self.checks.values())
        for box in self.checks.values():
            box.value = not is_every

    def _start(self, _: object) -> None:
        # A button calls a plain function, and forgets what that returns: the task is held here.
        if self.task is None or self.task.done():
            self._cancelled = threading.Event()
            self.task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        self.run.disabled, self.stop.disabled = True, False
        done = 0
        try:
            checks = [name for name, box in self.checks.items() if box.value]
            if not checks:
                raise UsageError("no check is ticked")
            sizes = {name: field.value for name, field in self.sizes.items()}
            values = parameters_for(self._lab.category.name, self.profile.value, sizes)
            asked = (self.target.value.strip(), self.profile.value, self.seed.value, values)
            for done, name in enumerate(checks):
                await self._one(Live(f"{done + 1} of {len(checks)}: {name}"), name, *asked)
            done = len(checks)
            hint = "" if self._lab.findings().empty else " lab.finding(&quot;F1&quot;) shows a finding of the table."
            self._say(f"{done} of {done} checks ran.{hint}")
        except Cancelled:
            self._say(f"Stopped; {done} checks ran.")
        except Exception as error:
            kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
            self._say(f"<strong>{escape(f'{kind}{error}')}</strong>", "alert")
        finally:
            self.run.disabled, self.stop.disabled = False, True

    async def _one(
        self, live: Live, check: str, target: str, profile: str, seed: int, parameters: Mapping[str, Any]
    ) -> None:
        """Run one check, and show meanwhile how it goes."""
        attempt = partial(
            self._lab.attempt,
            check,
            live,
            target=target,
            profile=profile,
            seed=seed,
            parameters=parameters,
            cancelled=self._cancelled,
        )
        running = asyncio.ensure_future(asyncio.to_thread(attempt))
        while not running.done():
            self.panel.value = live.html()
            await asyncio.wait([running], timeout=_SECONDS_BETWEEN)
        await running
        # As an output and not as a widget: only there scripts run, and it stays in a saved notebook.
        data = {"text/html": self._lab.results()._repr_html_()}
        self.table.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)

    def _say(self, html: str, role: str = "status") -> None:
        self.panel.value = f'<p role="{role}" style="overflow-wrap:anywhere;line-height:1.45">{html}</p>'


def _looks() -> dict[str, Any]:
    return {"style": _LABEL, "layout": _WIDE}


def _field(widgets: Any, parameter: Parameter, value: Any) -> Any:
    """What a parameter is typed into, or chosen with."""
    about = {
        "value": value,
        "description": parameter.name,
        "tooltip": f"{parameter.unit}: {parameter.meaning}" if parameter.meaning else parameter.unit,
        **_looks(),
    }
    if parameter.choices:
        return widgets.Dropdown(options=parameter.choices, **about)
    kinds = {int: widgets.IntText, float: widgets.FloatText, bool: widgets.Checkbox, str: widgets.Text}
    return kinds[type(value)](**about)
