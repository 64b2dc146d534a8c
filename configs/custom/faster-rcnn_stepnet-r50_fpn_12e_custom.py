# The same from the same weights with StepNet, which starts as a plain ResNet.
# Not trained here.
# python tools/train.py \
#     configs/custom/faster-rcnn_stepnet-r50_fpn_12e_custom.py --data my_data
_base_ = './faster-rcnn_r50_fpn_12e_custom.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='StepNetResNet',
        depth=50,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        style='pytorch',
    )
)
