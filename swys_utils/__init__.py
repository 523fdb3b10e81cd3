"""What the notebooks of SeeWhatYouShrink share, and the command line `swys` (in `__main__`).

Flat, one subject a module. This is the reading order, and a module imports only from modules named before it:
`config`, `data`, `models`, `metrics`, `gradcam`, `recipe`, `resume`, `training`, `distillation`, `explain`,
`benchmark`, `plots`, `browser`.
"""

__version__ = "0.2.0"
