# tools/dist_train.sh configs/timm/faster-rcnn_convnext-t_fpn_1x_coco.py 8
# Not trained. With ResNet-50, mmdet publishes 37.4 AP.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmBackbone',
        name='convnext_tiny.fb_in1k',
        drop_path_rate=0.1,
        pretrained=True,
    ),
    neck=dict(in_channels='auto'),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.7, norm_decay_mult=0.0),
)
