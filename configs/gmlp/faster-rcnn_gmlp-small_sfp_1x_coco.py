# tools/dist_train.sh configs/gmlp/faster-rcnn_gmlp-small_sfp_1x_coco.py 8
# Not trained.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    # timm trained these weights on pixels scaled to [-1, 1].
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        _delete_=True,
        type='GMLP',
        arch='small',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/rwightman/pytorch-image-models/'
            'releases/download/v0.1-weights/gmlp_s16_224_raa-10536d42.pth',
        ),
    ),
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=256),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
