/* A libcuda that stands in: GPUs, masks and faults are as the variables of its process say.

   FAKE_GPUS: "name|model|major|minor|GiB|mode;...". A model with " MIG " in it is an instance: CUDA shows a
   process one of them. FAKE_INIT: what cuInit answers. FAKE_HANG: it never answers. FAKE_DIES: it aborts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct gpu { char name[64], model[128]; int major, minor, gib, mode; };
static struct gpu all[64], shown[64];
static int counted = 0, visible = 0;

static int matching(const char *token) {
  int match = -1;
  char *end;
  long index = strtol(token, &end, 10);
  if (end != token) return index >= 0 && index < counted ? (int)index : -1;
  for (int i = 0; i < counted && strlen(token) > 4; i++)
    if (!strncmp(all[i].name, token, strlen(token))) { if (match >= 0) return -1; match = i; }
  return match;
}

static void show(int i) {
  int is_mig = strstr(all[i].model, " MIG ") != NULL;
  for (int k = 0; is_mig && k < visible; k++) if (strstr(shown[k].model, " MIG ")) return;
  shown[visible++] = all[i];
}

int cuInit(unsigned flags) {
  const char *gpus = getenv("FAKE_GPUS"), *mask = getenv("CUDA_VISIBLE_DEVICES"), *code = getenv("FAKE_INIT");
  char copy[4096], *rest = copy, *one;
  while (getenv("FAKE_HANG")) sleep(1);
  if (getenv("FAKE_DIES")) abort();
  if (code) return atoi(code);
  snprintf(copy, sizeof copy, "%s", gpus ? gpus : "");
  while ((one = strsep(&rest, ";"))) {
    struct gpu *g = &all[counted];
    if (sscanf(one, "%63[^|]|%127[^|]|%d|%d|%d|%d", g->name, g->model, &g->major, &g->minor, &g->gib, &g->mode) == 6)
      counted++;
  }
  if (!mask) for (int i = 0; i < counted; i++) show(i);
  else {
    snprintf(copy, sizeof copy, "%s", mask);
    rest = copy;
    while ((one = strsep(&rest, ","))) {
      int i;
      while (*one == ' ') one++;
      i = matching(one);
      if (i < 0) break;
      show(i);
    }
  }
  return visible ? 0 : 100;
}
int cuDeviceGetCount(int *count) { *count = visible; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetName(char *name, int length, int device) { snprintf(name, length, "%s", shown[device].model); return 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
  const char *c = shown[device].name + 4;
  for (int i = 0; i < 16; i++) { unsigned byte; if (*c == '-') c++; sscanf(c, "%2x", &byte); uuid[i] = byte; c += 2; }
  return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)shown[device].gib << 30; return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) {
  *value = which == 75 ? shown[device].major : which == 76 ? shown[device].minor : which == 20 ? shown[device].mode : -1;
  return 0;
}
int cuGetErrorName(int code, const char **name) {
  *name = code == 100 ? "CUDA_ERROR_NO_DEVICE" : code == 802 ? "CUDA_ERROR_SYSTEM_NOT_READY" : "CUDA_ERROR_UNKNOWN";
  return 0;
}
