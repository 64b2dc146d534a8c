# tools/dist_train.sh configs/timm/retinanet_efficientnet-b0_fpn_1x_coco.py 8
# Not trained. With ResNet-50, mmdet publishes 36.5 AP.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmBackbone',
        name='efficientnet_b0.ra_in1k',
        pretrained=True,
    ),
    neck=dict(in_channels='auto'),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
)
