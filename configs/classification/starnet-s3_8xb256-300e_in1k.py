# bash tools/dist_train.sh \
#     configs/classification/starnet-s3_8xb256-300e_in1k.py 8
# Published: 77.3 top-1 (StarNet paper). Not trained here.
_base_ = './starnet-s1_8xb256-300e_in1k.py'
model = dict(
    backbone=dict(arch='s3'),
    head=dict(in_channels=256),
)
