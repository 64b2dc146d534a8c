# tools/dist_train.sh configs/starnet/mask-rcnn_starnet-s2_fpn_1x_coco.py 8
# Not trained.
_base_ = './mask-rcnn_starnet-s1_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        arch='s2',
        init_cfg=dict(
            checkpoint='https://github.com/ma-xu/Rewrite-the-Stars/releases/'
            'download/checkpoints_v1/starnet_s2.pth.tar',
        ),
    ),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
