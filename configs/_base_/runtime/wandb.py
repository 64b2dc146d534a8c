# mmdet's default runtime, with Weights & Biases in addition to the log files
# (pip install wandb; wandb login). With WANDB_MODE=offline nothing is sent.
_base_ = 'mmdet::_base_/default_runtime.py'
visualizer = dict(
    vis_backends=[
        dict(type='LocalVisBackend'),
        dict(type='WandbVisBackend', init_kwargs=dict(project='mmext')),
    ]
)
