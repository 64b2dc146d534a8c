# tools/dist_train.sh configs/dwnet/\
# faster-rcnn_dwnet-base-inhomogeneous_fpn_1x_coco.py 8
# Not trained.
_base_ = './faster-rcnn_dwnet-base_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        dynamic='inhomogeneous',
        init_cfg=None,  # no ImageNet weights were released
    ),
)
