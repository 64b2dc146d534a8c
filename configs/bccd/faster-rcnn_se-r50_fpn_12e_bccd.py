# SE-ResNet-50 on blood cells; all but the attention is the baseline's.
# MMEXT_DATA=data python tools/train.py \
#     configs/bccd/faster-rcnn_se-r50_fpn_12e_bccd.py --amp
# Not trained.
_base_ = './faster-rcnn_r50_fpn_12e_bccd.py'
model = dict(
    backbone=dict(
        type='PluginResNet',
        plugins=[
            dict(
                cfg=dict(type='SEAttention', ratio=16, bias=False),
                position='after_conv3',
            )
        ],
    ),
)
