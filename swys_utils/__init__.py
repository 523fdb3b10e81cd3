"""What the notebooks of SeeWhatYouShrink share.

Flat, one subject a module. This is the reading order, and a module imports only from modules
named before it: `config`, `image_files`, `splits`, `data`, `cards`, `models`, `metrics`,
`vit_internals`, `attention_maps`, `occlusion`, `gradcam`, `planted`, `views`, `recipe`, `resume`,
`processes`, `training`, `distillation`, `stored_answers`, `saved_models`, `teachers`, `explain`,
`faithfulness`, `benchmark`, `onnx_gradcam`, `onnx_export`, `baseline`, `results`, `plots`,
`data_figures`, `vit_figures`, `score_figures`, `browser`, `exercises`, `shipped_results`,
`answer_figure`, `heatmap_figures`, `faithfulness_figures`, `planted_figures`, `inherited_figure`,
`teaching_figures`, `benchmark_figures`, `runs_figures`, `extras_figures`.
"""

__version__ = "0.2.0"
