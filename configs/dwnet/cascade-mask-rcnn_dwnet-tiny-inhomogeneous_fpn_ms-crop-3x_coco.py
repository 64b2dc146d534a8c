# tools/dist_train.sh configs/dwnet/\
# cascade-mask-rcnn_dwnet-tiny-inhomogeneous_fpn_ms-crop-3x_coco.py 8
# Not trained; nothing is published for this form.
_base_ = './cascade-mask-rcnn_dwnet-tiny_fpn_ms-crop-3x_coco.py'
model = dict(
    backbone=dict(
        dynamic='inhomogeneous',
        init_cfg=None,  # no ImageNet weights were released
    ),
)
