# tools/dist_train.sh configs/dwnet/\
# faster-rcnn_dwnet-base-homogeneous_fpn_1x_coco.py 8
# Not trained.
_base_ = './faster-rcnn_dwnet-base_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        dynamic='homogeneous',
        init_cfg=dict(
            checkpoint='https://github.com/Atten4Vis/DemystifyLocalViT/'
            'releases/download/prerelease/dynamic_dwnet_base_224.pth',
        ),
    ),
)
