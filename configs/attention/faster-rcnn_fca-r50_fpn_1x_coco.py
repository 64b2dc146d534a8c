# tools/dist_train.sh configs/attention/faster-rcnn_fca-r50_fpn_1x_coco.py 8
# Not trained. Published: 39.0 AP (FcaNet), from ImageNet weights with
# the attention; here from those of the plain ResNet.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
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
