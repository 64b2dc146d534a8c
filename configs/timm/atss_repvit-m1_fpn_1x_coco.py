# tools/dist_train.sh configs/timm/atss_repvit-m1_fpn_1x_coco.py 8
# Not trained. With ResNet-50, mmdet publishes 39.4 AP.
_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmBackbone',
        name='repvit_m1.dist_in1k',
        pretrained=True,
    ),
    neck=dict(in_channels='auto'),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
)
