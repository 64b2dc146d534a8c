# bash tools/dist_train.sh \
#     configs/classification/starnet-s150_8xb256-300e_in1k.py 8
# Published: 68.0 top-1 (StarNet paper). Not trained here.
_base_ = './starnet-s1_8xb256-300e_in1k.py'
model = dict(
    backbone=dict(arch='s150'),
    head=dict(in_channels=192),
)
