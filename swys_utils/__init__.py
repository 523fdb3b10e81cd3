"""What the six notebooks of SeeWhatYouShrink share, and the command line `swys`.

Flat, one subject a module. A module imports only modules named before it, so each can be read on its own:
`config`, `stats`, `fetch`, `data`, `models`, `training`, `distillation`, `gradcam`, `explain`, `benchmark`,
`reference`, `study`, `export`, `ladder`, `lesson`, `plots`, `browser`, `cli`.
"""

__version__ = "0.1.0"
