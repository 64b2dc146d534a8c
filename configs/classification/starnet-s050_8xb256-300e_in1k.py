# bash tools/dist_train.sh \
#     configs/classification/starnet-s050_8xb256-300e_in1k.py 8
# Published: 55.7 top-1 (StarNet paper). Not trained here.
_base_ = './starnet-s1_8xb256-300e_in1k.py'
model = dict(
    backbone=dict(arch='s050'),
    head=dict(in_channels=128),
)
