/* A stand-in for libnvidia-ml.so.1: the part of NVML's ABI that pynvml, Ray and the meter call.
 *
 * Power is an analytic function of wall time, and the energy counter its exact integral since an epoch, so a test
 * knows every joule. All settings are environment variables, read at each call:
 *   NVML_STANDIN_DEVICES     number of GPUs (default 2)
 *   NVML_STANDIN_SHAPES      comma list, taken in turn by device: square, sawtooth, bursty, constant (default square)
 *   NVML_STANDIN_EPOCH       UNIX s at which the counters were zero (default 0)
 *   NVML_STANDIN_STEP_MS     the counter moves in steps of this length (default 0: continuously)
 *   NVML_STANDIN_NO_COUNTER  set: TotalEnergyConsumption is NOT_SUPPORTED
 *   NVML_STANDIN_CONTROL     a folder; `lost-<i>` there: device i is lost; `reset-<i>`: its counter fell to 0 at the
 *                            UNIX time that the file holds
 * tests/nvml/curves.py states the same curves in Python. Build: cc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, GPU_IS_LOST = 15 };
enum { MOST = 64 };
typedef struct { int index; } device_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilization_t;

static device_t devices[MOST];

static double number(const char *name, double otherwise) {
    const char *text = getenv(name);
    return text && *text ? atof(text) : otherwise;
}

static double wall_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int control(const char *what, int index, double *value) {
    const char *folder = getenv("NVML_STANDIN_CONTROL");
    char path[512];
    if (!folder || !*folder) return 0;
    snprintf(path, sizeof path, "%s/%s-%d", folder, what, index);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    if (value && fscanf(file, "%lf", value) != 1) *value = 0;
    fclose(file);
    return 1;
}

static void shape_of(int index, char shape[32]) {
    const char *list = getenv("NVML_STANDIN_SHAPES");
    char copy[512], *parts[MOST], *rest = copy, *part;
    int count = 0;
    snprintf(copy, sizeof copy, "%s", list && *list ? list : "square");
    while (count < MOST && (part = strsep(&rest, ",")) != NULL) parts[count++] = part;
    snprintf(shape, 32, "%s", parts[index % count]);
}

/* Joules of the curve from 0 to `in_s` of its period, watts at that moment. Keep in step with curves.py. */
static void within(const char *shape, double in_s, double *energy_j, double *power_w) {
    if (!strcmp(shape, "square")) {           /* 4 s: 2 s at 400 W, 2 s at 100 W */
        *power_w = in_s < 2 ? 400 : 100;
        *energy_j = in_s < 2 ? 400 * in_s : 800 + 100 * (in_s - 2);
    } else if (!strcmp(shape, "sawtooth")) {  /* 5 s: 80 W rising to 380 W */
        *power_w = 80 + 60 * in_s;
        *energy_j = 80 * in_s + 30 * in_s * in_s;
    } else if (!strcmp(shape, "bursty")) {    /* 10 s: 60 W with 500 W in [0, 0.3), [2, 2.6) and [7, 8.5) */
        const double bursts[3][2] = {{0, 0.3}, {2, 2.6}, {7, 8.5}};
        *power_w = 60;
        *energy_j = 60 * in_s;
        for (int i = 0; i < 3; i++) {
            *energy_j += 440 * fmax(0, fmin(in_s, bursts[i][1]) - bursts[i][0]);
            if (in_s >= bursts[i][0] && in_s < bursts[i][1]) *power_w = 500;
        }
    } else {                                  /* constant */
        *power_w = 250;
        *energy_j = 250 * in_s;
    }
}

static double period_s(const char *shape) {
    return !strcmp(shape, "square") ? 4 : !strcmp(shape, "sawtooth") ? 5 : 10;
}

static double energy_j(int index, double since_epoch_s) {
    char shape[32];
    double whole_j, part_j, power_w, period;
    shape_of(index, shape);
    period = period_s(shape);
    within(shape, period, &whole_j, &power_w);
    within(shape, fmod(since_epoch_s, period), &part_j, &power_w);
    return floor(since_epoch_s / period) * whole_j + part_j;
}

int nvmlInitWithFlags(unsigned int flags) { (void)flags; return SUCCESS; }
int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    return code == GPU_IS_LOST ? "GPU is lost" : code == NOT_SUPPORTED ? "Not Supported" : "Error";
}

int nvmlSystemGetDriverVersion(char *text, unsigned int length) {
    snprintf(text, length, "0.0-standin");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned int *count) {
    double devices_n = number("NVML_STANDIN_DEVICES", 2);
    *count = (unsigned int)fmin(devices_n, MOST);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, device_t **device) {
    unsigned int count;
    nvmlDeviceGetCount_v2(&count);
    if (index >= count) return INVALID_ARGUMENT;
    devices[index].index = (int)index;
    *device = &devices[index];
    return SUCCESS;
}

int nvmlDeviceGetUUID(device_t *device, char *text, unsigned int length) {
    snprintf(text, length, "GPU-00000000-0000-0000-0000-%012d", device->index);
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, device_t **device) {
    unsigned int count;
    char other[96];
    nvmlDeviceGetCount_v2(&count);
    for (unsigned int i = 0; i < count; i++) {
        nvmlDeviceGetHandleByIndex_v2(i, device);
        nvmlDeviceGetUUID(*device, other, sizeof other);
        if (!strcmp(uuid, other)) return control("lost", (int)i, NULL) ? GPU_IS_LOST : SUCCESS;
    }
    return NOT_FOUND;
}

int nvmlDeviceGetName(device_t *device, char *text, unsigned int length) {
    (void)device;
    snprintf(text, length, "NVIDIA A100-STANDIN");
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(device_t *device, unsigned long long *energy_mj) {
    double now_s = wall_s(), epoch_s = number("NVML_STANDIN_EPOCH", 0), reset_s, step_s;
    const char *no_counter = getenv("NVML_STANDIN_NO_COUNTER");
    if (no_counter && *no_counter) return NOT_SUPPORTED;
    if (control("lost", device->index, NULL)) return GPU_IS_LOST;
    step_s = number("NVML_STANDIN_STEP_MS", 0) / 1000;
    if (step_s > 0) now_s = floor(now_s / step_s) * step_s;
    double energy = energy_j(device->index, now_s - epoch_s);
    if (control("reset", device->index, &reset_s)) energy -= energy_j(device->index, reset_s - epoch_s);
    *energy_mj = (unsigned long long)llround(1000 * fmax(0, energy));
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(device_t *device, unsigned int *power_mw) {
    char shape[32];
    double joules, watts;
    if (control("lost", device->index, NULL)) return GPU_IS_LOST;
    shape_of(device->index, shape);
    within(shape, fmod(wall_s() - number("NVML_STANDIN_EPOCH", 0), period_s(shape)), &joules, &watts);
    *power_mw = (unsigned int)lround(1000 * watts);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(device_t *device, memory_t *memory) {
    (void)device;
    *memory = (memory_t){80ULL << 30, 79ULL << 30, 1ULL << 30};
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(device_t *device, utilization_t *rates) {
    (void)device;
    *rates = (utilization_t){50, 10};
    return SUCCESS;
}

int nvmlDeviceGetMigMode(device_t *device, unsigned int *current, unsigned int *pending) {
    (void)device;
    *current = *pending = 0;
    return NOT_SUPPORTED;
}
