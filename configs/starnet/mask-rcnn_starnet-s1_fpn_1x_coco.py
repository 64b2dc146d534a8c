# tools/dist_train.sh configs/starnet/mask-rcnn_starnet-s1_fpn_1x_coco.py 8
# Published: 33.8 box AP, 31.9 mask AP (LSNet, table 2). Not trained here.
_base_ = [
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    '../_base_/backbones/starnet.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = _base_.pop('starnet').s1
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
)
