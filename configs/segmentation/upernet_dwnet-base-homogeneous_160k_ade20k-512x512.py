# bash tools/dist_train.sh configs/segmentation/\
# upernet_dwnet-base-homogeneous_160k_ade20k-512x512.py 8
# Published: 48.0 mIoU (Atten4Vis/DemystifyLocalViT README). Not trained here.
_base_ = [
    './upernet_dwnet-base_160k_ade20k-512x512.py',
    '../_base_/backbones/dwnet.py',
]
model = _base_.pop('dwnet').base_homogeneous
