# mmdet's default runtime, with Weights & Biases beside the log files
# (pip install wandb; wandb login). WANDB_MODE=offline sends nothing.
_base_ = 'mmdet::_base_/default_runtime.py'
visualizer = dict(
    vis_backends=[
        dict(type='LocalVisBackend'),
        dict(type='WandbVisBackend', init_kwargs=dict(project='mmext')),
    ]
)
