# tools/dist_train.sh configs/dwnet/\
# faster-rcnn_dwnet-tiny_fpn_1x_coco.py 8
# Not trained. The optimizer is the DWNet authors', the schedule is mmdet's.
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    '../_base_/backbones/dwnet.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = _base_.pop('dwnet').tiny
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0)}),
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
)
