# bash tools/dist_train.sh configs/segmentation/\
# upernet_dwnet-tiny-homogeneous_160k_ade20k-512x512.py 8
# Published: 45.7 mIoU (Atten4Vis/DemystifyLocalViT README). Not trained here.
_base_ = './upernet_dwnet-tiny_160k_ade20k-512x512.py'
model = dict(
    backbone=dict(
        dynamic='homogeneous',
        init_cfg=dict(
            checkpoint='https://github.com/Atten4Vis/DemystifyLocalViT/'
            'releases/download/prerelease/dynamic_dwnet_tiny_224.pth',
        ),
    ),
)
