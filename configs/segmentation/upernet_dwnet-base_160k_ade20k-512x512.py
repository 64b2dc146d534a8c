# bash tools/dist_train.sh \
#     configs/segmentation/upernet_dwnet-base_160k_ade20k-512x512.py 8
# Published: 48.3 mIoU (Atten4Vis/DemystifyLocalViT README). Not trained here.
_base_ = [
    './upernet_dwnet-tiny_160k_ade20k-512x512.py',
    '../_base_/backbones/dwnet.py',
]
model = dict(
    backbone=_base_.pop('dwnet').base.backbone,
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
