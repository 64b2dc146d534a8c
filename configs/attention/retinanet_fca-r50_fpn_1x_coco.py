# tools/dist_train.sh configs/attention/retinanet_fca-r50_fpn_1x_coco.py 8
# Not trained; nothing is published.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='PluginResNet',
        plugins=[
            dict(
                cfg=dict(type='FCAAttention', ratio=16),
                position='after_conv3',
            )
        ],
    ),
)
