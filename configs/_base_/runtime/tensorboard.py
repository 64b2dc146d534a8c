# mmdet's default runtime, with TensorBoard in addition to the log files:
# tensorboard --logdir work_dirs (pip install tensorboard).
_base_ = 'mmdet::_base_/default_runtime.py'
visualizer = dict(
    vis_backends=[
        dict(type='LocalVisBackend'),
        dict(type='TensorboardVisBackend'),
    ]
)
