# The demo's StepNet: the baseline with a learned step size in every block.
# python tools/train.py configs/demo/faster-rcnn_stepnet-r18_fpn_demo_shapes.py
# Result: docs/results.md.
_base_ = './faster-rcnn_r18_fpn_demo_shapes.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='StepNetResNet',
        depth=18,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=-1,
        norm_eval=False,
        norm_cfg=dict(type='BN', requires_grad=True),
        style='pytorch',
        zero_init_residual=False,
        init_cfg=None,
    )
)
