# tools/dist_train.sh configs/dwnet/\
# faster-rcnn_dwnet-base-inhomogeneous_fpn_1x_coco.py 8
# Not trained.
_base_ = [
    './faster-rcnn_dwnet-base_fpn_1x_coco.py',
    '../_base_/backbones/dwnet.py',
]
model = _base_.pop('dwnet').inhomogeneous
