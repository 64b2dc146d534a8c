# tools/dist_train.sh configs/dwnet/\
# faster-rcnn_dwnet-base_fpn_1x_coco.py 8
# Not trained.
_base_ = './faster-rcnn_dwnet-tiny_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        arch='base',
        init_cfg=dict(
            checkpoint='https://github.com/Atten4Vis/DemystifyLocalViT/'
            'releases/download/prerelease/dwnet_base_224.pth',
        ),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
