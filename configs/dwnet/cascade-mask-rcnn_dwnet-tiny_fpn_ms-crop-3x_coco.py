# tools/dist_train.sh configs/dwnet/\
# cascade-mask-rcnn_dwnet-tiny_fpn_ms-crop-3x_coco.py 8
# Published: 49.9 box AP, 43.4 mask AP (README of
# Atten4Vis/DemystifyLocalViT, downstreams/detection). Not trained here.
_base_ = [
    'mmdet::convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_'
    'amp-ms-crop-3x_coco.py',
    '../_base_/backbones/dwnet.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = _base_.pop('dwnet').tiny
optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0)}),
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[27, 33], end=36, by_epoch=True),
]
