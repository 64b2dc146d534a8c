# bash tools/dist_train.sh \
#     configs/classification/starnet-s2_8xb256-300e_in1k.py 8
# Published: 74.8 top-1 (StarNet paper). Not trained here.
_base_ = './starnet-s1_8xb256-300e_in1k.py'
model = dict(
    backbone=dict(arch='s2'),
    head=dict(in_channels=256),
)
