/** The part of htm and Preact that the page uses. */
export type Child = any;
export function html(strings: TemplateStringsArray, ...values: any[]): Child;
export function render(node: Child, parent: Element): void;
export function useState<T>(initial: T | (() => T)): [T, (next: T | ((before: T) => T)) => void];
export function useEffect(effect: () => void | (() => void), inputs?: unknown[]): void;
export function useLayoutEffect(effect: () => void | (() => void), inputs?: unknown[]): void;
export function useRef<T>(initial: T): { current: T };
export function useMemo<T>(make: () => T, inputs: unknown[]): T;
export function useCallback<F extends (...args: any[]) => any>(callback: F, inputs: unknown[]): F;
