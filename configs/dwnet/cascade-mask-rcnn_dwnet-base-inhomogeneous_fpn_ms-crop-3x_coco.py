# tools/dist_train.sh configs/dwnet/\
# cascade-mask-rcnn_dwnet-base-inhomogeneous_fpn_ms-crop-3x_coco.py 8
# Not trained. Nothing is published for this form.
_base_ = [
    './cascade-mask-rcnn_dwnet-base_fpn_ms-crop-3x_coco.py',
    '../_base_/backbones/dwnet.py',
]
model = _base_.pop('dwnet').inhomogeneous
