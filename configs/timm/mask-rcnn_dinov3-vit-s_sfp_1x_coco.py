# tools/dist_train.sh configs/timm/mask-rcnn_dinov3-vit-s_sfp_1x_coco.py 8
# Not trained. With ResNet-50, mmdet publishes 38.2 box and 34.7 mask AP.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmBackbone',
        name='vit_small_patch16_dinov3.lvd1689m',
        final_norm=True,
        drop_path_rate=0.1,
        pretrained=True,
    ),
    neck=dict(
        _delete_=True,
        type='SimpleFeaturePyramid',
        in_channels='auto',
        stride='auto',
    ),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.1),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.7, norm_decay_mult=0.0),
)
