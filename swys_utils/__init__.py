"""What the six notebooks of SeeWhatYouShrink share, and the command line `swys`.

Flat, one subject a module: `config`, `stats`, `data`, `models`, `training`, `distillation`, `gradcam`, `explain`,
`benchmark`, `plots`, `browser`, `cli`. A module imports only modules named before it, so each can be read on its own.
"""

__version__ = "0.1.0"
