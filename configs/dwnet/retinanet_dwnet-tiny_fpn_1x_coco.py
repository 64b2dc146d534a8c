# tools/dist_train.sh configs/dwnet/\
# retinanet_dwnet-tiny_fpn_1x_coco.py 8
# Not trained. The optimizer is the DWNet authors', the schedule is mmdet's.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    '../_base_/backbones/dwnet.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(_base_.pop('dwnet').tiny.backbone, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[192, 384, 768], start_level=0),
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0)}),
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
)
