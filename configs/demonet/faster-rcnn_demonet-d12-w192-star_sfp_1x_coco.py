# tools/dist_train.sh \
#     configs/demonet/faster-rcnn_demonet-d12-w192-star_sfp_1x_coco.py 8
# Not trained. No weights were released, so this config starts from random
# weights: it compares operations and does not reach a good AP.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, type='DemoNet', depth=12, embed_dims=192),
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=192),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, custom_keys=dict(gamma=dict(decay_mult=0.0))
    ),
)
