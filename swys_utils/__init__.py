"""What the notebooks of SeeWhatYouShrink share.

Flat, one subject a module. This is the reading order, and a module imports only from modules
named before it: `config`, `image_files`, `splits`, `data`, `cards`, `models`, `metrics`,
`vit_internals`, `attention_maps`, `occlusion`, `gradcam`, `planted`, `views`, `recipe`, `resume`,
`processes`, `training`, `distillation`, `stored_answers`, `saved_models`, `teachers`, `explain`,
`faithfulness`, `benchmark`, `onnx_gradcam`, `onnx_export`, `baseline`, `results`,
`shipped_results`, `curve_names`, `plots`, `browser`, `exercises`. Figures are in swys_figures.
"""

__version__ = "0.2.0"
