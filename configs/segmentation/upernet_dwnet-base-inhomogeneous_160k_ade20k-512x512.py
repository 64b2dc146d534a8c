# bash tools/dist_train.sh configs/segmentation/\
# upernet_dwnet-base-inhomogeneous_160k_ade20k-512x512.py 8
# Not trained. Nothing is published for this form.
_base_ = [
    './upernet_dwnet-base_160k_ade20k-512x512.py',
    '../_base_/backbones/dwnet.py',
]
model = _base_.pop('dwnet').inhomogeneous
