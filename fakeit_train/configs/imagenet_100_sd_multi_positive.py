"""ViT-S/16 on ImageNet-100-SD without labels: images of one prompt are each other's positives, as in StableRep.

    fakeit-build make imagenet_100_sd/c_cfg2 CLONE --prompts captions.csv --images-per-prompt 4
    torchrun --nproc-per-node 4 -m fakeit_train imagenet_100_sd_multi_positive --data CLONE --out run --val REAL \\
        --set validation.knn=10 validation.linear_probe=50

The clone needs prompts of its own for few images each (docs/prompts.md). A batch of 1,024 images holds 256 prompts with
four images, of each of which two crops are compared with all others: 8 crops of each prompt. StableRep (Tian et al.,
2023) has larger batches on more images; its temperature is 0.1 as well.

This config has not been run here yet, because it needs GPUs. On digits: `digits_multi_positive`.
"""

from builders.networks.backbone import Backbone
from fakeit_train.config import DataConfig, OptimConfig, TrainConfig
from fakeit_train.crops.config import CropConfig, CropKind

CONFIG = TrainConfig(
    objective="multi_positive",
    num_epochs=300,
    log_every=50,
    sync_batch_norm=False,
    backbone=Backbone(
        library="timm", arch="vit_small_patch16_224", arch_options={"drop_path_rate": 0.1}, input_size=224
    ),
    data=DataConfig(batch_size=1024, num_workers=12),
    optim=OptimConfig(
        name="adamw",
        learning_rate=2.5e-4,
        scale_rate=True,
        min_learning_rate=1e-6,
        warm_up=0.1,
        betas=(0.9, 0.98),
        weight_decay=0.1,
        clip_norm=1.0,
    ),
    crops=CropConfig(kinds=(CropKind(num_crops=2, size=224, scale=(0.2, 1.0), blur=0.5, solarize=0.1),)),
)
