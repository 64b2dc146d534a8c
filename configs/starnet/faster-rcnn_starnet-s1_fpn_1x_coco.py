# tools/dist_train.sh configs/starnet/faster-rcnn_starnet-s1_fpn_1x_coco.py 8
# Not trained. The optimizer is that of the published StarNet-s1 detectors
# (RetinaNet 33.6 AP, Mask R-CNN 33.8 box AP: see README.md).
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    '../_base_/backbones/starnet.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = _base_.pop('starnet').s1
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
)
