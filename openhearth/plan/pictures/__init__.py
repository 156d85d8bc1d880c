"""The pictures of `hearth plan ... --plot FILE`: plain figures in, a file out. matplotlib is imported when one is drawn.

loss_plane     loss over parameters and tokens, with lines of equal loss and equal cost, the optimum, and known models
loss_curves    loss against tokens, with what twice the tokens gain
memory_bars    memory of a device, part by part, one bar for each layout
budget_ladder  what each budget buys: size, tokens, loss
fit_picture    a fit and its residuals
"""

from __future__ import annotations

from openhearth.drawing import check
from openhearth.plan.pictures.bars import memory_bars
from openhearth.plan.pictures.curves import loss_curves
from openhearth.plan.pictures.fits import fit_picture
from openhearth.plan.pictures.ladder import budget_ladder
from openhearth.plan.pictures.plane import loss_plane

__all__ = ["budget_ladder", "check", "fit_picture", "loss_curves", "loss_plane", "memory_bars"]
