# tools/dist_train.sh configs/dwnet/\
# cascade-mask-rcnn_dwnet-base-homogeneous_fpn_ms-crop-3x_coco.py 8
# Published: 51.2 box AP, 44.4 mask AP (README of
# Atten4Vis/DemystifyLocalViT, downstreams/detection). Not trained here.
_base_ = [
    './cascade-mask-rcnn_dwnet-base_fpn_ms-crop-3x_coco.py',
    '../_base_/backbones/dwnet.py',
]
model = _base_.pop('dwnet').base_homogeneous
